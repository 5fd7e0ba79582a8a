"""The dashboard: what the stages measured, to be looked at; it reads files and changes nothing."""
