"""Virtual environments of the peers, one for each file ``NAME.txt`` in this folder.

An environment holds only what the peer needs in other versions or besides the packages of this
project: a ``.pth`` file adds the site-packages of this interpreter after its own. All peers then
run on the same versions of torch, transformers and NumPy as this project, and nothing large is
installed twice. The packages are installed without their dependencies, because some peers require
older versions of these; ``NAME.txt`` lists every package that is imported.
"""

import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of all environments."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def python_of(name: str, home: Path) -> Path:
    """Interpreter of an environment; of this project for an empty name."""
    return home / name / "bin" / "python" if name else Path(sys.executable)


def install(name: str, home: Path) -> str:
    """Create an environment, unless it exists with the same packages.

    Args:
        name: Name of the environment.
        home: Folder of all environments.

    Returns:
        Last line of the installer's errors; empty if the environment is ready.
    """
    requirements = FOLDER / f"{name}.txt"
    paths = f"{sysconfig.get_path('purelib')}\n"
    wanted = hashlib.sha256(requirements.read_bytes() + paths.encode()).hexdigest()
    marker = home / name / ".installed"
    if marker.exists() and marker.read_text() == wanted:
        return ""
    print(f"== installing {name}", flush=True)
    folder = home / name
    subprocess.run(
        [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True
    )
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "lib" / version / "site-packages" / "project.pth").write_text(paths)
    python = str(python_of(name, home))
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--requirement", str(requirements)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        return process.stderr.strip().splitlines()[-1]
    marker.write_text(wanted)
    return ""
