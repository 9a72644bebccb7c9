"""The kinds of stores, and what they have in common. `trainer.store` opens one."""
