"""HTML reference of the Python API."""

import sys
from pathlib import Path

import mmtpp


def write_reference(folder: Path) -> None:
    """Write HTML pages with the docstrings of all names in ``mmtpp.__all__``.

    Args:
        folder: Output folder; created if it does not exist. The pages load no external resources.
    """
    import pdoc  # installed with the extra `dev`
    import pdoc.render

    for name in mmtpp.__all__:  # names are loaded on first use; pdoc reads only loaded names
        setattr(mmtpp, name, getattr(mmtpp, name))
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc("mmtpp", output_directory=folder)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_reference(folder)
    sys.stdout.write(f"written: {folder / 'mmtpp.html'}\n")
