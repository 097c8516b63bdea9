"""Where the weights that a detector starts from come from, without loading a network."""

from __future__ import annotations

from dataclasses import dataclass

RANDOM, PUBLISHED, FILE, RUN, ADOPTED = "random", "published", "file", "run", "adopted"
_DIGITS = 12


@dataclass(frozen=True)
class WeightsSource:
    """The file that weights come from, with its SHA-256; "" for what is not known.

    ``kind`` is random, published, file (another tool's), run (of kit), or adopted (detections in place of weights).
    ``address`` is that of a published file or of its repository, of which it has the ``revision``.
    """

    kind: str
    name: str = ""
    address: str = ""
    revision: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.kind not in (RANDOM, PUBLISHED, FILE, RUN, ADOPTED):
            raise ValueError(f"weights from {self.kind!r}")

    def text(self) -> str:
        """The source in words."""
        if self.kind == RANDOM:
            return "random weights"
        revision = f"revision {self.revision[:_DIGITS]}" if self.revision else ""
        known = [text for text in (revision, self.sha256 and f"SHA-256 {self.sha256[:_DIGITS]}") if text]
        what = {PUBLISHED: "published weights", FILE: "the file", RUN: "the checkpoint", ADOPTED: "the detections"}[
            self.kind
        ]
        return f"{what} {self.address or self.name}" + (f" ({', '.join(known)})" if known else "")
