"""Looking through recordings and data sets: what is in them, what is wrong with them, and a picture of their truth."""

from evhands.examination.examine import examine
from evhands.examination.findings import KINDS, Examined, Finding
from evhands.examination.folder import examine_index, sources_of
from evhands.examination.sheet import contact_sheet

__all__ = ["KINDS", "Examined", "Finding", "contact_sheet", "examine", "examine_index", "sources_of"]
