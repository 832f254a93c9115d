"""What finished runs did, as one HTML file for people who never saw a terminal."""

from lightning_edit.report.page import write_report

__all__ = ["write_report"]
