"""The outbox: events written beside the change that causes them, published after its commit (design section 7)."""
