"""Recformer: items as sentences, histories as sequences of sentences, one encoder for both."""
