# The lease loop: claim, converge, release.
