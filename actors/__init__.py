"""Everything that produces data in parallel: rollout actors and the pool."""
