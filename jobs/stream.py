"""Land events that arrive over time, exactly once and in order, for jobs/prepare.py.

python jobs/stream.py --config jobs/configs/own_events.toml --set stream.input=INCOMING \\
    --set stream.output=LANDED --set stream.allowed_lateness_seconds=300
"""

import sys

from mmtpp.cli.jobs import run_named_job

if __name__ == "__main__":
    sys.exit(run_named_job("stream", example=__doc__ or ""))
