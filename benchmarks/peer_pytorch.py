"""The same updates in eager PyTorch: batched twins, fused Adam, torch.func for MAML."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


def mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    """ReLU network."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Twins(nn.Module):
    """Two networks of one shape as batched products."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(sizes))
        self.weights = nn.ParameterList([0.05 * torch.randn(2, a, b) for a, b in pairs])
        self.biases = nn.ParameterList([torch.zeros(2, 1, b) for _, b in pairs])

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in]` to `[2, batch]`."""
        x = x.expand(2, -1, -1)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if layer < last:
                x = torch.relu(x)
        return x[..., 0]


def adam(module: nn.Module) -> torch.optim.Adam:
    """Fused Adam."""
    return torch.optim.Adam(module.parameters(), lr=3e-4, fused=True)


class OnlineStep:
    """SAC, safety critic and recovery policy of one size."""

    def __init__(self, obs: int, action: int, hidden: int, batch: int, rows: int = 10_000) -> None:
        self.obs, self.action, self.batch = obs, action, batch
        inner = (hidden, hidden)
        self.policy = mlp((obs, *inner, 2 * action))
        self.recovery = mlp((obs, *inner, action))
        critic = (obs + action, *inner, 1)
        self.value, self.value_target = Twins(critic), Twins(critic)
        self.risk, self.risk_target = Twins(critic), Twins(critic)
        self.optimisers = {
            name: adam(getattr(self, name)) for name in ("policy", "recovery", "value", "risk")
        }
        self.rows = torch.randn(rows, 2 * obs + 2 * action + 3)

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Tanh-Gaussian action and its log density."""
        mean, log_std = self.policy(obs).chunk(2, dim=-1)
        log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        noise = torch.randn_like(mean)
        raw = mean + log_std.exp() * noise
        density = -0.5 * noise.square() - log_std - 0.9189385
        squash = 2.0 * (0.6931472 - raw - nn.functional.softplus(-2.0 * raw))
        return torch.tanh(raw), (density - squash).sum(-1)

    def batch_of(self) -> tuple[Tensor, ...]:
        """Rows of the replay as columns."""
        rows = self.rows[torch.randint(len(self.rows), (self.batch,))]
        o, a = self.obs, self.action
        return rows.split([o, a, a, o, 1, 1, 1], dim=1)

    def _step(self, name: str, loss: Tensor, inputs: list[Tensor] | None = None) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward(inputs=inputs)
        optimiser.step()

    def _follow(self, target: nn.Module, online: nn.Module, rate: float) -> None:
        with torch.no_grad():
            torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), rate)

    def sac_update(self) -> None:
        """Critics, actor, targets."""
        obs, proposed, _, next_obs, reward, _, terminated = self.batch_of()
        with torch.no_grad():
            action, density = self.sample(next_obs)
            value = self.value_target(torch.cat([next_obs, action], 1)).amin(0) - 0.2 * density
            target = reward[:, 0] + (1 - (terminated[:, 0] > 2).float()) * 0.99 * value
        values = self.value(torch.cat([obs, proposed], 1))
        self._step("value", (values - target).square().mean(1).sum())
        action, density = self.sample(obs)
        value = self.value(torch.cat([obs, action], 1)).amin(0)
        loss = (0.2 * density - value).mean()
        self._step("policy", loss, list(self.policy.parameters()))
        self._follow(self.value_target, self.value, 0.005)

    def risk_update(self) -> None:
        """Safety critics, their target, recovery policy."""
        obs, _, action, next_obs, _, cost, terminated = self.batch_of()
        cost = (cost[:, 0] > 1).float()
        with torch.no_grad():
            next_action, _ = self.sample(next_obs)
            risk = torch.sigmoid(self.risk_target(torch.cat([next_obs, next_action], 1)).amax(0))
            target = cost + (1 - cost) * (1 - (terminated[:, 0] > 2).float()) * 0.8 * risk
        predicted = torch.sigmoid(self.risk(torch.cat([obs, action], 1)))
        self._step("risk", (predicted - target).square().mean(1).sum())
        self._follow(self.risk_target, self.risk, 2e-4)
        raw = self.recovery(obs)
        risk = torch.sigmoid(self.risk(torch.cat([obs, torch.tanh(raw)], 1)).amax(0))
        loss = risk.mean() + 1e-3 * raw.square().mean()
        self._step("recovery", loss, list(self.recovery.parameters()))

    def act(self) -> None:
        """One guarded action."""
        with torch.no_grad():
            obs = torch.ones(1, self.obs)
            action, _ = self.sample(obs)
            risk = torch.sigmoid(self.risk(torch.cat([obs, action], 1)).amax(0))
            if risk.item() > 0.1:
                action = torch.tanh(self.recovery(obs))

    def run(self, steps: int) -> None:
        """Whole online steps."""
        for _ in range(steps):
            self.act()
            self.sac_update()
            self.risk_update()


def meta_iterations(
    obs: int, action: int, hidden: int, batch: int, steps: int, tasks: int = 5
) -> Callable[[], None]:
    """Second-order MAML with torch.func, vectorised over tasks, and a step of the recovery policy
    down the prior critic.
    """
    critic = mlp((obs + action, hidden, hidden, 1))
    recovery = mlp((obs, hidden, hidden, action))
    recovery_optimiser = adam(recovery)
    parameters = {name: p.detach().clone() for name, p in critic.named_parameters()}
    moments = [torch.nn.Parameter(p) for p in parameters.values()]
    optimiser = torch.optim.Adam(moments, lr=3e-4, fused=True)
    x, next_x = torch.randn(2, tasks, 2, batch, obs + action).unbind(0)
    cost = (torch.rand(tasks, 2, batch) < 0.1).float()

    def risk(weights: dict[str, Tensor], rows: Tensor) -> Tensor:
        return torch.sigmoid(functional_call(critic, weights, (rows,))[..., 0])

    def loss(weights: dict[str, Tensor], rows: Tensor, next_rows: Tensor, c: Tensor) -> Tensor:
        target = (c + (1 - c) * 0.8 * risk(weights, next_rows)).detach()
        return (risk(weights, rows) - target).square().mean()

    def outer(weights: dict[str, Tensor], rows: Tensor, next_rows: Tensor, c: Tensor) -> Tensor:
        inner = grad(loss)(weights, rows[0], next_rows[0], c[0])
        adapted = {name: weights[name] - inner[name] for name in weights}
        return loss(adapted, rows[1], next_rows[1], c[1])

    per_task = vmap(grad(outer), in_dims=(None, 0, 0, 0))
    names = list(parameters)

    def run() -> None:
        for _ in range(steps):
            weights = dict(zip(names, (p.detach() for p in moments), strict=True))
            grads = per_task(weights, x, next_x, cost)
            for parameter, name in zip(moments, names, strict=True):
                parameter.grad = grads[name].mean(0)
            torch.nn.utils.clip_grad_norm_(moments, 40.0)
            optimiser.step()
            recovery_step()

    def recovery_step() -> None:
        weights = dict(zip(names, (p.detach() for p in moments), strict=True))
        states = x[0, 1, :, :obs]
        raw = recovery(states)
        rows = torch.cat([states, torch.tanh(raw)], dim=1)
        recovery_optimiser.zero_grad()
        (risk(weights, rows).mean() + 1e-3 * raw.square().mean()).backward()
        recovery_optimiser.step()

    return run
