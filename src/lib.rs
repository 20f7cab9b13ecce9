//! The operator of Atomix: Store, Session and Driver controllers.
