"""The pictures of the README, taken from the runs of ``make demo``; needs Chromium.

make pictures
"""

import shutil
import sys
import tempfile
from pathlib import Path

from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from cluster.local import default_home, up

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
WAIT_MS = 60_000
EVENT = 40  # position of the event whose card is shown


def _newest(client: MlflowClient, job: str) -> Run:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(
        experiments,
        filter_string=f"tags.`mmtpp.job` = '{job}'",
        order_by=["attributes.start_time DESC"],
    )
    finished = [run for run in runs if run.info.status == "FINISHED"]
    if not finished:
        raise SystemExit(f"no finished run of jobs/{job}.py in MLflow: run `make demo` first")
    return finished[0]


def report(browser: Browser, client: MlflowClient) -> None:
    """Screenshot of the end of the report: an example with one event selected."""
    run = _newest(client, "evaluate")
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(run.info.run_id, "report.html", folder)
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        page.goto(Path(path).as_uri())
        page.get_by_role("heading", name="Examples").scroll_into_view_if_needed()
        events = page.locator("details[open] .timeline .event")
        events.nth(min(EVENT, events.count() - 1)).focus()
        page.evaluate("document.querySelector('h2:last-of-type').scrollIntoView()")
        page.screenshot(path=FOLDER / "report.png")
        page.close()


def curves(browser: Browser, client: MlflowClient, mlflow_uri: str) -> None:
    """Screenshot of the fine-tuning's curves in MLflow."""
    run = _newest(client, "finetune")
    page = browser.new_page(viewport={"width": 1400, "height": 760})
    place = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/model-metrics"
    page.goto(f"{mlflow_uri}/{place}")
    search = page.get_by_placeholder("Search metric charts")
    search.fill("^train/.*loss_per_token", timeout=WAIT_MS)
    page.locator(".js-plotly-plot .scatterlayer path.js-line").first.wait_for(
        state="attached", timeout=WAIT_MS
    )
    page.wait_for_timeout(2000)  # until the other charts are drawn
    page.screenshot(path=FOLDER / "mlflow.png")
    page.close()


def main() -> int:
    """Take both screenshots."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if chromium is None:
        print("no Chromium on this machine: apt install chromium", file=sys.stderr)
        return 1
    stack = up(default_home())
    client = MlflowClient(stack.mlflow_uri)
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        report(browser, client)
        curves(browser, client, stack.mlflow_uri)
        browser.close()
    for path in FOLDER.glob("*.png"):  # fewer colours make the files three times smaller
        with Image.open(path) as image:
            small = image.convert("RGB").quantize(colors=64, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
