"""Fill the table of results in README.md from results/*.json.

python tools/readme_results.py            rewrite the part between the markers
python tools/readme_results.py --check    stop when that would change it (`make lint` does so)
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "book" / "_ext"))

from results import load_results, lookup, paper_rows, text_of  # noqa: E402  (the book's extension is not installed)

BEGIN, END = "<!-- results: written by tools/readme_results.py -->", "<!-- end of results -->"


def tables(root: Path = ROOT) -> str:
    """One table per committed results file that compares black deletion and retention with the paper's values."""
    parts = []
    for path in sorted((root / "results").glob("*.json")):
        results = load_results(root, path.stem)
        if "methods" not in results:  # another kind of measurement, for example of speed
            continue
        parts.append(
            f"`{path.stem}`: {text_of(lookup(results, 'identities'))} people, "
            f"{text_of(lookup(results, 'images.test'))} test pictures, test accuracy "
            f"{text_of(lookup(results, 'test.accuracy'), 'ci')} % (paper: 96.33 %)"
        )
        head, *rows = paper_rows(results, "black")
        parts.append("\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)))
    return "\n\n".join(parts) or "No run on real faces is recorded yet."


def filled(text: str, content: str) -> str:
    """`text` with `content` between the markers. Raises `ValueError` when a marker is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md must hold the markers {BEGIN} and {END}")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def main(root: Path = ROOT) -> None:
    """The command line; see the top of this file."""
    readme = root / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = filled(old, tables(root))
    if sys.argv[1:] == ["--check"]:
        if new != old:
            sys.exit("README.md does not show results/*.json as they are: python tools/readme_results.py")
    else:
        readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
