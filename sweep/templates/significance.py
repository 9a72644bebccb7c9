"""Source of the notebook."""

# %%
