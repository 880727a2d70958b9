"""What a host does for the cluster: assigned tasks become containers of the plain engine, and what became of them is
told.

`machine` decides, `runner` carries out, one runner per task; `worker` owns the runners, the engine's event stream and
what survives a restart of the agent. `container`, `templates`, `files`, `describe` and `observe` are pure translations.
"""
