"""From raw files to packed sequences: readers, filters, vocabulary, splits, batches."""
