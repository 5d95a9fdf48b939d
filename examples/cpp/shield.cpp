// The networks of a shield in C++ over onnxruntime. UNTESTED: it was written without a build of
// onnxruntime's C++ API at hand.
//
//   g++ -std=c++20 -O2 shield.cpp -I$ORT/include -L$ORT/lib -lonnxruntime -o shield
//   ./shield my_shield/shield.onnx
//
// The graph takes physical units and computes risk and recovery action; normaliser and scaling are
// inside it. What is decided with them is here: faults of the input, hysteresis, minimum dwell, hard
// limits, safe action. Fill Settings from `shield` in manifest.json with the JSON library you use.
// Timing faults, rates, what lies outside the training data and the black box are not shown;
// safemesa_shield.py has them.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

struct Settings {
  std::vector<double> low, high;    // hard limits of each action
  std::vector<double> safe_action;  // within them
  double risk_limit = 0.1;
  double release_limit = 0.1;  // at most risk_limit
  int minimum_dwell_ticks = 0;
};

struct Decision {
  std::vector<double> action;
  double risk = std::nan("");
  bool overridden = false;
  const char* reason = "ok";
};

class Shield {
 public:
  Shield(const std::string& onnx_file, std::size_t observations, Settings settings)
      : settings_(std::move(settings)),
        observation_(observations),
        proposed_(settings_.safe_action.size()),
        session_(environment_, onnx_file.c_str(), options()) {
    const std::size_t actions = settings_.safe_action.size();
    if (settings_.low.size() != actions || settings_.high.size() != actions ||
        settings_.release_limit > settings_.risk_limit) {
      throw std::invalid_argument("settings do not fit together");
    }
  }

  // Throws nothing: every fault gives the safe action.
  Decision decide(std::span<const double> observation, std::span<const double> proposed) noexcept {
    try {
      return judge(observation, proposed);
    } catch (...) {
      return safe("internal_error");
    }
  }

 private:
  static Ort::SessionOptions options() {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);  // threads cost more than they bring at this size
    options.SetInterOpNumThreads(1);
    return options;
  }

  static bool read(std::span<const double> given, std::vector<float>& into) {
    if (given.size() != into.size()) return false;
    for (std::size_t i = 0; i < given.size(); ++i) {
      if (!(std::abs(given[i]) < 1e30)) return false;  // false for NaN too
      into[i] = static_cast<float>(given[i]);
    }
    return true;
  }

  Decision safe(const char* reason) const {
    return {settings_.safe_action, std::nan(""), true, reason};
  }

  // Clips into the hard limits; the last thing before anything leaves.
  bool bound(std::vector<double>& action) const {
    bool clipped = false;
    for (std::size_t i = 0; i < action.size(); ++i) {
      const double inside = std::clamp(action[i], settings_.low[i], settings_.high[i]);
      const double width = settings_.high[i] - settings_.low[i];
      clipped |= std::abs(inside - action[i]) > 1e-6 * width;
      action[i] = inside;
    }
    return clipped;
  }

  Decision judge(std::span<const double> observation, std::span<const double> proposed) {
    if (!read(observation, observation_)) return safe("bad_observation");
    if (!read(proposed, proposed_)) return safe("bad_action");
    std::vector<double> action(proposed.begin(), proposed.end());
    for (std::size_t i = 0; i < action.size(); ++i) {
      const double width = settings_.high[i] - settings_.low[i];
      if (action[i] < settings_.low[i] - width || action[i] > settings_.high[i] + width) {
        return safe("wild_action");
      }
    }
    const bool clipped = bound(action);
    for (std::size_t i = 0; i < action.size(); ++i) proposed_[i] = static_cast<float>(action[i]);

    const std::array<std::int64_t, 2> obs_shape{1, static_cast<std::int64_t>(observation_.size())};
    const std::array<std::int64_t, 2> act_shape{1, static_cast<std::int64_t>(proposed_.size())};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::array<Ort::Value, 2> inputs{
        Ort::Value::CreateTensor<float>(memory, observation_.data(), observation_.size(),
                                        obs_shape.data(), obs_shape.size()),
        Ort::Value::CreateTensor<float>(memory, proposed_.data(), proposed_.size(),
                                        act_shape.data(), act_shape.size())};
    const std::array<const char*, 2> input_names{"observation", "action"};
    const std::array<const char*, 2> output_names{"risk", "recovery"};
    const auto outputs = session_.Run(Ort::RunOptions{nullptr}, input_names.data(), inputs.data(),
                                      inputs.size(), output_names.data(), output_names.size());
    const double risk = outputs[0].GetTensorData<float>()[0];
    if (!std::isfinite(risk)) return safe("model_fault");

    if (!engaged_) {
      engaged_ = risk > settings_.risk_limit;
      held_ = 0;
    } else if (++held_; risk <= settings_.release_limit && held_ >= settings_.minimum_dwell_ticks) {
      engaged_ = false;
    }
    if (!engaged_) return {action, risk, clipped, clipped ? "hard_limit" : "ok"};

    const float* recovery = outputs[1].GetTensorData<float>();
    std::vector<double> escape(recovery, recovery + proposed_.size());
    for (const double value : escape) {
      if (!std::isfinite(value)) return safe("recovery_fault");
    }
    bound(escape);
    return {escape, risk, true, risk > settings_.risk_limit ? "risk" : "holding"};
  }

  Settings settings_;
  std::vector<float> observation_, proposed_;
  bool engaged_ = false;
  int held_ = 0;
  Ort::Env environment_{ORT_LOGGING_LEVEL_WARNING, "shield"};
  Ort::Session session_;
};

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s shield.onnx\n", argv[0]);
    return 2;
  }
  // Navigation 2: two observations, two actions.
  Shield shield(argv[1], 2, {{-1.0, -1.0}, {1.0, 1.0}, {0.0, 0.0}, 0.1, 0.1, 0});
  const Decision decision = shield.decide(std::vector{-40.0, 5.0}, std::vector{1.0, 0.0});
  std::printf("risk %.4f, %s: ", decision.risk, decision.reason);
  for (const double value : decision.action) std::printf("%.4f ", value);
  std::printf("\n");
}
