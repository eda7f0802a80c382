//! What programs and people talk to: types, client, server routers
