"""Decoding: lists made item by item, by beam search and Diverse Beam Search, and chosen anew by MMR, DPP."""

from __future__ import annotations

from recsys.decoding.beam import search
from recsys.decoding.dissimilarity import ItemFacts
from recsys.decoding.lists import Lists
from recsys.decoding.rules import Quota, Rules
from recsys.decoding.settings import SearchSettings
from recsys.decoding.shortlist import Catalogue

__all__ = ["Catalogue", "ItemFacts", "Lists", "Quota", "Rules", "SearchSettings", "search"]
