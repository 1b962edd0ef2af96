"""The reference of ``import mmtpp`` as pages: ``make docs``."""

import sys
from pathlib import Path

import mmtpp


def write_reference(folder: Path) -> None:
    """Write HTML pages from the docstrings of everything in ``mmtpp.__all__``.

    Args:
        folder: created if it is not there; nothing in it refers to the outside.
    """
    import pdoc  # of the extra `dev`
    import pdoc.render

    for name in mmtpp.__all__:  # they are loaded when they are first used, which pdoc does not do
        setattr(mmtpp, name, getattr(mmtpp, name))
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc("mmtpp", output_directory=folder)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    write_reference(place)
    sys.stdout.write(f"written: {place / 'mmtpp.html'}\n")
