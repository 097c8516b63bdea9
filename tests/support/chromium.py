"""A headless Chromium for the tests of pages: the system's own, driven by Playwright; nothing is downloaded."""

import contextlib
import importlib.util
import shutil

import pytest
from command_line import PATIENCE_SECONDS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 1000 * PATIENCE_SECONDS
MISSING = "no chromium on this machine" if CHROMIUM is None else ""
if not importlib.util.find_spec("playwright"):
    MISSING = "no playwright: pip install -e '.[dev]'"

needs_chromium = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@contextlib.contextmanager
def browser():
    """A running Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], timeout=PATIENCE_MS
        )
        yield chromium
        chromium.close()


class Watched:
    """A page in its own window: its requests, errors and messages are kept. ``close`` it."""

    def __init__(self, chromium, path, address="", **options):
        self.context = chromium.new_context(**{"viewport": {"width": 1300, "height": 900}, **options})
        self.context.set_default_timeout(PATIENCE_MS)
        self.page, self.requests, self.faults = self.context.new_page(), [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.uri = path.as_uri()
        self.page.goto(self.uri + address)

    def count(self):
        return int(self.page.text_content("#count"))

    def shown(self):
        """The names of the images on the cards, in their order."""
        return self.page.eval_on_selector_all(".card", "cards => cards.map(card => card.dataset.name)")

    def choose(self, key, text):
        """Choose an option of a filter by its text."""
        self.page.select_option(f"#control-{key}", label=text)

    def slide(self, step):
        self.page.evaluate(f"change({{slider: {step}}})")

    def require_quiet(self):
        """Nothing was asked for but the page itself and pictures in it; nothing was said or went wrong."""
        assert self.faults == []
        assert [
            url for url in self.requests if not url.startswith("data:") and url.partition("#")[0] != self.uri
        ] == []

    def close(self):
        self.context.close()
