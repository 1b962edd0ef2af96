"""Imports without the garbage collector, which runs again afterwards."""

import gc

import pytest

from mmtpp.runtime.fast_imports import fast_imports


@pytest.fixture(autouse=True)
def collector():
    """Leave the collector of the tests as it was."""
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize("was_enabled", [True, False])
def test_the_collector_is_paused_and_then_as_before(was_enabled: bool):
    (gc.enable if was_enabled else gc.disable)()
    with fast_imports():
        assert not gc.isenabled()
    assert gc.isenabled() == was_enabled


def test_what_was_imported_is_not_looked_at_again():
    with fast_imports():
        kept = [[number] for number in range(1000)]
    assert gc.get_freeze_count() > 1000
    assert not any(known is kept for known in gc.get_objects())


def test_a_module_that_fails_leaves_the_collector_running():
    with pytest.raises(ModuleNotFoundError), fast_imports():
        import no_such_module  # noqa: F401  # pyright: ignore[reportMissingImports]
    assert gc.isenabled()
