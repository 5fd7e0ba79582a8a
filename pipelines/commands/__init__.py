"""The commands of `recsys`, a file for what they are about; `pipelines.cli` puts them together."""
