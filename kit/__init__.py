"""kit: find pathologies on chest X-rays, from the download to a scored submission.

The packages are listed in README.md; where to change what is in docs/architecture.md.
"""

__version__ = "0.1.0"
