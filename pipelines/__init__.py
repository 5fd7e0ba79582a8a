"""The batch stages, from raw files to a bundle: the only place that knows Ray and MLflow."""
