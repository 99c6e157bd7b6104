"""The pure core: desired and observed state in, a plan with nothing left to decide out."""
