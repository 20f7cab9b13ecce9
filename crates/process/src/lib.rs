//! What every program of Atomix shares: logging, admin server, supervised tasks, shutdown.
