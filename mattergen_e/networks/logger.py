"""The loss curves of a run as metrics.csv, which a resumed run goes on with."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment

from mattergen_e.files import replacing


class ResumingCSVLogger(CSVLogger):
    """Lightning's logger, which removes the file of an earlier run, unless a run says that it goes on with that one."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Writer:
        """The writer, made when it is first asked for."""
        if self._experiment is None:
            self._experiment = Writer(self.log_dir)
        return self._experiment  # pyright: ignore[reportReturnType]


class Writer(ExperimentWriter):
    """Lightning's writer, which leaves an earlier file as it is until there is something to write."""

    def __init__(self, log_dir: str) -> None:
        """Writes into a folder."""
        super().__init__(log_dir)
        self._begun = False

    def goes_on(self, step: int) -> None:
        """Keeps what an earlier run logged before a step, which this one goes on from.

        Args:
            step: Number of finished steps. What was logged after the last checkpoint is logged anew.
        """
        path = Path(self.metrics_file_path)
        if self._begun or not path.is_file():
            return
        content = path.read_text(encoding="utf-8")
        reader = csv.DictReader(io.StringIO(content[: content.rfind("\n") + 1]))  # a kill may tear the last line
        keys = list(reader.fieldnames or ())
        rows = [row for row in reader if str(row.get("step")).isdecimal() and int(row["step"]) < step]
        if rows:
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, fieldnames=keys, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
            with replacing(path) as file:
                file.write(text.getvalue().encode())
            self.metrics_keys = keys
            self._begun = True

    def save(self) -> None:
        """Writes what was logged."""
        if self.metrics and not self._begun:
            Path(self.metrics_file_path).unlink(missing_ok=True)
            self._begun = True
        super().save()

    def _check_log_dir_exists(self) -> None:
        """Lightning removes the earlier file here."""
