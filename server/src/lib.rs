//! The receiver: ingest, sessions, store, catalogue
