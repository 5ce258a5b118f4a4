"""SB3's own algorithms on a data set: what flow policies are compared with."""

from sb3_flow.baselines.offline import OfflineSAC, OfflineTD3

__all__ = ["OfflineSAC", "OfflineTD3"]
