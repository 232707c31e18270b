"""Boards as data: one TOML file for each; docs/targets/fpga.md says what the keys mean."""
