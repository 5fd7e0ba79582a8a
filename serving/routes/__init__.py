"""The routes of the endpoint, a file for each thing they are about."""
