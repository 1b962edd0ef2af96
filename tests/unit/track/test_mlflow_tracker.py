"""The tracker on MLflow's own database."""

from mlflow.tracking import MlflowClient

from mmtpp.track.mlflow_tracker import MlflowTracker


def _tracker(folder: object, name: str, parent: str | None = "") -> MlflowTracker:
    tracker = MlflowTracker(
        f"sqlite:///{folder}/mlflow.db",
        experiment="test",
        run_key=name,
        run_name=name,
        run_uri=f"{folder}/{name}",
        parent_run_id=parent or "",
    )
    assert tracker.wait_for_run(60.0)
    return tracker


def test_a_run_is_found_again_and_only_the_named_children_are_closed(tmp_path):
    parent = _tracker(tmp_path, "parent")
    names = ("stopped", "running", "ended")
    children = {name: _tracker(tmp_path, name, parent.run_id) for name in names}
    children["ended"].close("FINISHED")
    children["stopped"].close("")  # its process is gone, its run is open
    children["running"].close("")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")

    def state() -> list[tuple[str, str | None]]:
        runs = [client.get_run(children[name].run_id) for name in names]
        return [(run.info.status, run.data.tags.get("mmtpp.stopped")) for run in runs]

    again = _tracker(tmp_path, "parent")
    assert parent.run_id == again.run_id
    again.close_children("fell behind", run_name="stopped")
    again.close("")
    assert state() == [("KILLED", "fell behind"), ("RUNNING", None), ("FINISHED", None)]

    parent.close_children("the end")
    parent.close("FINISHED")
    assert state() == [("KILLED", "fell behind"), ("KILLED", "the end"), ("FINISHED", None)]

    _tracker(tmp_path, "stopped", parent.run_id).close("FINISHED")  # went on
    assert state() == [("FINISHED", None), ("KILLED", "the end"), ("FINISHED", None)]
