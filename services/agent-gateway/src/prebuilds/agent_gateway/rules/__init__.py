"""Pure decisions of the gateway: what a stream gets, what a beginning is, whether a token counts."""
