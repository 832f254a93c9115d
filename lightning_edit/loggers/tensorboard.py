"""TensorBoard: a description beside every chart, pages of charts, texts, pictures, and a row of settings."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.text import metadata as texts

from lightning_edit.loggers.adapter import LoggerAdapter
from lightning_edit.loggers.content import Setting, Table
from lightning_edit.loggers.hparams import hparams_of
from lightning_edit.loggers.pages import layout_of
from lightning_edit.metrics.descriptions import description

SCALARS = SummaryMetadata.PluginData(plugin_name="scalars")


class TensorBoardAdapter(LoggerAdapter):
    """TensorBoard's logger; see `LoggerAdapter`.

    A prefix of the user's own changes the names under which figures are known: they then have no descriptions and are
    on no page.
    """

    shows_runs = True

    def __init__(self, logger: Any) -> None:
        super().__init__(logger)
        self._described: set[tuple[str, str]] = set()
        self._tags: set[str] = set()
        self._pages = b""

    def prepare(self) -> None:
        """Lets Lightning write no ``hp_metric`` of -1, beside which TensorBoard would show no other figure."""
        self.logger._default_hp_metric = False

    def know(self, tags: Sequence[str]) -> None:
        """Puts the charts of these figures on the pages from now on."""
        self._tags.update(tags)

    def figures(self, figures: Mapping[str, float], step: int) -> None:
        """Writes figures, with a description beside the first value of each."""
        known = {} if self.logger._prefix else figures
        described = self._describe(known, step)
        super().figures({name: value for name, value in figures.items() if name not in described}, step)
        if not known.keys() <= self._tags:
            self._tags |= known.keys()
            self._lay_out(step)

    def distribution(self, name: str, values: Any, step: int) -> None:
        """Writes a histogram."""
        # Under a scalar's own name a histogram would make TensorBoard drop the scalar.
        room, _, rest = name.partition("/")
        self.logger.experiment.add_histogram(f"{room}_each/{rest}", values, step)

    def text(self, name: str, markdown: str, step: int) -> None:
        """Writes a text."""
        # SummaryWriter.add_text puts a word of its own behind the name.
        about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=texts.PLUGIN_NAME))
        value = Summary.Value(tag=name, tensor=_string(markdown.encode()), metadata=about)
        self._add(Summary(value=[value]), step)

    def table(self, table: Table, step: int) -> None:
        """Writes a table as a text."""
        self.text(table.name, table.markdown(), step)

    def picture(self, name: str, png: bytes, step: int) -> None:
        """Writes a picture as it is."""
        from PIL import Image  # comes with matplotlib, which has drawn it

        width, height = Image.open(io.BytesIO(png)).size
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        self._add(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def settings(self, settings: Mapping[str, Setting], figures: Sequence[str], step: int) -> None:
        """Makes the run a row of the HParams page."""
        for summary in hparams_of(settings, [] if self.logger._prefix else figures):
            self._add(summary, step)

    def _describe(self, figures: Mapping[str, float], step: int) -> set[str]:
        """Writes the figures that have a description and were never written; returns their names."""
        written = set()
        for name, value in figures.items():
            place, text = (self.logger.log_dir, name), description(name)
            if text and place not in self._described:
                metadata = SummaryMetadata(summary_description=text, plugin_data=SCALARS)
                # SummaryWriter.add_scalar takes no description.
                self._add(Summary(value=[Summary.Value(tag=name, simple_value=float(value), metadata=metadata)]), step)
                self._described.add(place)
                written.add(name)
        return written

    def _lay_out(self, step: int) -> None:
        """Writes the pages where they have changed; TensorBoard takes the latest."""
        layout = layout_of(self._tags).SerializeToString(deterministic=True)
        if layout == self._pages:
            return
        self._pages = layout
        # SummaryWriter.add_custom_scalars writes them without a step: the first ones would count.
        about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=custom_scalars.PLUGIN_NAME))
        value = Summary.Value(tag=custom_scalars.CONFIG_SUMMARY_TAG, tensor=_string(layout), metadata=about)
        self._add(Summary(value=[value]), step)

    def _add(self, summary: Summary, step: int) -> None:
        self.logger.experiment._get_file_writer().add_summary(summary, step)


def _string(content: bytes) -> TensorProto:
    return TensorProto(dtype="DT_STRING", string_val=[content], tensor_shape=TensorShapeProto())
