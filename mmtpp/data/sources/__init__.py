"""Readers of raw event files: one file in, one sequence and its rejected records out."""

from mmtpp.data.sources.danmaku import DANMAKU
from mmtpp.data.sources.flights import FLIGHTS
from mmtpp.data.sources.mmtpp_json import MMTPP
from mmtpp.data.sources.reader import SourceReader

READERS: dict[str, SourceReader] = {"flights": FLIGHTS, "danmaku": DANMAKU, "mmtpp": MMTPP}
