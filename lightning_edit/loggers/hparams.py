"""TensorBoard's HParams page: a row for each run, with its settings and with what came of them."""

import time
from collections.abc import Mapping, Sequence

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_BOOL,
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_SUCCESS,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from lightning_edit.loggers.content import Setting
from lightning_edit.metrics.descriptions import description

TYPES = {bool: DATA_TYPE_BOOL, float: DATA_TYPE_FLOAT64, int: DATA_TYPE_FLOAT64, str: DATA_TYPE_STRING}


def hparams_of(settings: Mapping[str, Setting], figures: Sequence[str]) -> list[Summary]:
    """What makes a run a row of the page; figures are looked up among its scalars, so none is written again.

    Args:
        settings: Under dotted names.
        figures: The names of scalars.
    """
    now = time.time()
    experiment = Experiment(
        hparam_infos=[
            # TensorBoard shows those first that are said to differ.
            HParamInfo(name=name, type=TYPES[type(value)], differs="." not in name)
            for name, value in settings.items()
        ],
        metric_infos=[
            MetricInfo(name=MetricName(tag=name), display_name=name, description=description(name)) for name in figures
        ],
        time_created_secs=now,
    )
    start = SessionStartInfo(start_time_secs=now)
    for name, value in settings.items():
        kind = {DATA_TYPE_BOOL: "bool_value", DATA_TYPE_FLOAT64: "number_value", DATA_TYPE_STRING: "string_value"}
        setattr(start.hparams[name], kind[TYPES[type(value)]], value)
    end = SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=now)
    return [
        _summary(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment)),
        _summary(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)),
        _summary(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)),
    ]


def _summary(tag: str, content: HParamsPluginData) -> Summary:
    about = metadata.create_summary_metadata(content)
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])
