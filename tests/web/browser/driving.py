"""What a person does in the browser, and what they see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.conftest import LONG_S


@dataclass
class Screen:
    """A browser on the console at `url`."""

    browser: Any
    url: str

    def open(self, address: str) -> None:
        """Loads a page of the console."""
        self.browser.get(self.url + address)

    def all(self, selector: str) -> list[Any]:
        """The elements of a CSS selector."""
        return list(self.browser.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        """The first element of a CSS selector."""
        return self.browser.find_element("css selector", selector)

    def keys(self, *keys: str) -> None:
        """Types on the page itself."""
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def call_me(self, name: str) -> None:
        """Gives a name at the top of the page."""
        field = self.one('form.who input[name="name"]')
        field.clear()
        field.send_keys(name)
        here = field
        self.one("form.who button").click()
        self.until_gone(here)

    def says(self, words: str) -> None:
        """Waits until the page says this to whoever listens."""
        self.until(lambda: words in self.one("#said").text)

    def until(self, condition: Any) -> None:
        """Waits for the page."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, LONG_S, poll_frequency=0.05).until(lambda _: condition())

    def until_gone(self, element: Any) -> None:
        """Waits until the page of this element was left."""
        from selenium.webdriver.support.expected_conditions import staleness_of

        self.until(lambda: staleness_of(element)(self.browser))

    def follow(self, element: Any) -> None:
        """Clicks what leads to another page, and waits for that."""
        body = self.one("body")
        element.click()
        self.until_gone(body)

    def here(self) -> str:
        """The item that the keyboard is on, by id."""
        found = self.all("[data-item][aria-current]")
        return str(found[0].get_attribute("id")) if found else ""

    def wider_than_the_screen(self) -> bool:
        """Whether the page scrolls sideways."""
        return bool(self.browser.execute_script(
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth"))  # fmt: skip

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Another screen, in light or dark mode."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def faults(self, axe: str) -> list[str]:
        """What axe-core calls serious or critical on this page: rule, and where."""
        self.browser.execute_script(axe)
        found = self.browser.execute_async_script(
            "axe.run(document, {resultTypes: ['violations']}).then(r => arguments[0](r.violations))"
        )
        return [
            f"{each['id']}: {each['nodes'][0]['html'][:200]}"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]
