"""Makes screenshots of the page for the documentation: `python tests/web_screenshots.py SITE IMAGE FOLDER`.

SITE is the folder that `keras-bit export --format web --runtime DIR` wrote. The page classifies IMAGE, and FOLDER gets
desktop.png, dark.png and phone.png.
"""

import base64
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from browser import chromium, serving

PATIENCE = 120  # seconds
VIEWS = {"desktop": (1200, False, "light"), "dark": (1200, False, "dark"), "phone": (390, True, "light")}


def main(site: Path, image: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, serving(site) as server, chromium(Path(profile)) as driver:
        for name, (width, phone, scheme) in VIEWS.items():
            size = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": phone}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
            colors = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", colors)
            driver.get(server.address)
            driver.find_element("id", "file").send_keys(str(image.resolve()))
            _wait_for(driver, f"{image.name}: ")
            time.sleep(1)  # the bars grow
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
            (folder / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
            print(folder / f"{name}.png")


def _wait_for(driver: Any, beginning: str) -> None:
    ends = time.monotonic() + PATIENCE
    while not driver.find_element("id", "status").text.startswith(beginning):
        trouble = driver.find_element("id", "trouble").text
        if trouble or time.monotonic() > ends:
            raise RuntimeError(trouble or f"The page has not answered in {PATIENCE} s.")
        time.sleep(0.1)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
