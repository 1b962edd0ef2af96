"""The pages of MLflow about a training and an evaluation, in a real browser."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from mmtpp.evaluate.evaluate import evaluate
from mmtpp.train.launch import finetune
from tests.helpers.job_settings import make_config

pytestmark = pytest.mark.slow
TIMEOUT_MS = 60_000  # MLflow's pages are large and load slowly on two cores


@pytest.fixture(scope="module")
def runs(base) -> tuple[dict, dict]:
    """A fine-tuning and its evaluation."""
    changes = {"model.path": base["model_uri"], "lora.rank": 8, "training.learning_rate": 1e-2}
    tuned = finetune(make_config(**changes, **{"run.name": "seen"}))
    adapter = {"model.path": base["model_uri"], "model.adapter": tuned["adapter_uri"]}
    return tuned, evaluate(make_config(**adapter))


def _open(browser, stack, run_id: str, place: str = ""):
    experiment = MlflowClient(stack.mlflow_uri).get_run(run_id).info.experiment_id
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{stack.mlflow_uri}/#/experiments/{experiment}/runs/{run_id}{place}")
    return page


def test_mlflow_shows_the_description_and_the_curves_of_a_training(
    runs, browser, stack, tmp_path: Path
):
    tuned, _ = runs
    page = _open(browser, stack, tuned["run_id"])
    for text in ("seen", "LoRA of rank 8", tuned["adapter_uri"], "train/loss_per_token"):
        page.get_by_text(text).first.wait_for(timeout=TIMEOUT_MS)
    page.screenshot(path=tmp_path / "run.png")
    page.close()
    page = _open(browser, stack, tuned["run_id"], "/model-metrics")
    page.get_by_placeholder("Search metric charts").fill(
        "train/.*loss_per_token", timeout=TIMEOUT_MS
    )
    curves = page.locator(".js-plotly-plot .scatterlayer path.js-line")
    try:
        curves.first.wait_for(state="attached", timeout=TIMEOUT_MS)
    finally:
        page.screenshot(path=tmp_path / "curves.png")
    assert curves.count() > 1
    page.close()
    # with the view "Model training" the experiment lists its runs
    experiment = MlflowClient(stack.mlflow_uri).get_run(tuned["run_id"]).info.experiment_id
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{stack.mlflow_uri}/#/experiments/{experiment}/runs")
    page.get_by_text("Model training").first.click(timeout=TIMEOUT_MS)
    page.goto(f"{stack.mlflow_uri}/#/experiments/{experiment}/runs")
    try:
        page.get_by_text("seen", exact=True).first.wait_for(timeout=TIMEOUT_MS)
    finally:
        page.screenshot(path=tmp_path / "experiment.png")
    page.close()
    page = _open(browser, stack, tuned["run_id"], "/system-metrics")
    page.get_by_text("cpu_utilization_percentage").first.wait_for(timeout=TIMEOUT_MS)
    page.close()


def test_mlflow_shows_the_figures_and_the_report_of_an_evaluation(
    runs, browser, stack, tmp_path: Path
):
    _, evaluated = runs
    page = _open(browser, stack, evaluated["run_id"], "/artifacts/figures/calibration.png")
    page.wait_for_function(_IMAGE_IS_LOADED, timeout=TIMEOUT_MS)
    page.screenshot(path=tmp_path / "figure.png")
    page.close()
    page = _open(browser, stack, evaluated["run_id"], "/artifacts/report.html")
    frame = page.frame_locator("iframe")
    frame.get_by_text("The model and the baselines").wait_for(timeout=TIMEOUT_MS)
    row = frame.locator("tr", has=frame.get_by_role("rowheader", name="Accuracy of types"))
    accuracy = f"{100 * evaluated['metrics']['type/accuracy']:.1f} %"
    assert accuracy in row.inner_text()
    assert frame.locator(".timeline").count() >= 1
    page.screenshot(path=tmp_path / "report.png")
    page.close()


_IMAGE_IS_LOADED = "() => [...document.images].some(image => image.naturalWidth > 300)"
