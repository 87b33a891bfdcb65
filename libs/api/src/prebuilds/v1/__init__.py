"""Generated from protos/prebuilds/v1: messages and typed stubs."""
