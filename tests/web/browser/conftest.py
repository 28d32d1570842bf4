"""A real headless Chromium, one a module, on the console's real server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
AXE = Path(os.environ.get("QRELAY_AXE", ROOT / ".axe" / "node_modules" / "axe-core" / "axe.min.js"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A driver of Debian's Chromium; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: run `make setup-browser`")
    binary, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not binary or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.set_capability("unhandledPromptBehavior", "ignore")
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(autouse=True)
def _no_script_fails(browser: Any) -> Iterator[None]:
    """No test leaves an error that a page's script did not catch."""
    yield
    thrown = [each["message"] for each in browser.get_log("browser") if each["source"] == "javascript"]
    assert thrown == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core; skips where it was not fetched."""
    if not AXE.exists():
        pytest.skip(f"no axe-core at {AXE}: `make setup-browser` fetches it")
    return AXE.read_text()
