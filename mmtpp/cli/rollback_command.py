"""``mmtpp rollback``: let an alias of the model registry name the version before."""

import argparse
import sys


def add_arguments(rollback: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    rollback.description = (
        "Undoes the last promotion by mmtpp update: the alias names the version again that it "
        "named before. A service that follows the alias changes over at once."
    )
    rollback.add_argument("model", metavar="models:/NAME@ALIAS", help="alias in the model registry")
    rollback.add_argument(
        "--tracking-uri",
        default="",
        metavar="URI",
        help="address of the tracking server; MLFLOW_TRACKING_URI when left out",
    )


def run(options: argparse.Namespace) -> None:
    """Move the alias back and print both versions."""
    from mmtpp.track.champion import Champion

    champion = Champion.from_address(options.model, tracking_uri=options.tracking_uri)
    until_now, from_now = champion.roll_back()
    sys.stdout.write(
        f"{options.model} names version {from_now} again; it named version {until_now}\n"
    )
