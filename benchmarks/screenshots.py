"""Makes the pictures of the docs: pages of the ready shield, as a browser shows them.

    python -m benchmarks.screenshots --out docs/images

It needs Chromium (`--browser` names it) and Pillow, which the extra `plots` brings. The pages are
those of `safemesa demo --shield`, `shield replay` and `data report`.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.own_logs.documented_path import safemesa
from safemesa.shield.demo.cart import demo_logs

WIDTH = 1160
SHOTS = {
    "demo_shield": ("demo/report.html", 1470),
    "shield_replay": ("replay.html", 1720),
    "data_report": ("data.html", 1370),
}
"""Name of the picture: its page, and how much of it is shown, in pixels."""
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
COLOURS = 250


def pages(folder: Path) -> None:
    """Writes the pages, with commands as a reader of the docs would."""
    os.chdir(folder)
    safemesa("demo", "--shield", "--out", "demo")
    safemesa("shield", "replay", "demo/log", "--shield", "demo/shield", "--out", "replay.html")
    demo_logs().save("cart_logs")
    safemesa("data", "report", "cart_logs", "--out", "data.html")


def photograph(browser: str, page: Path, out: Path, height: int) -> None:
    """The upper part of a page as a PNG file of few colours."""
    with tempfile.TemporaryDirectory() as temporary:
        raw = Path(temporary) / "raw.png"
        profile = f"--user-data-dir={temporary}/profile"
        size = f"--window-size={WIDTH},{height}"
        command = [browser, *QUIET, profile, size, f"--screenshot={raw}", page.as_uri()]
        subprocess.run(command, check=True, timeout=120, stderr=subprocess.DEVNULL)
        image = Image.open(raw).convert("RGB")
        image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--browser", default="chromium")
    flags = parser.parse_args()
    out = flags.out.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        pages(folder)
        for name, (page, height) in SHOTS.items():
            photograph(flags.browser, folder / page, out / f"{name}.png", height)
        os.chdir(out)


if __name__ == "__main__":
    main()
