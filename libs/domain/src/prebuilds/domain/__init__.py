"""The words of Prebuilds: enums, ids, small values, refusals and their reasons."""
