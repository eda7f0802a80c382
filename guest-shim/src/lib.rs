//! What lives inside the guest: the panic record ABI, the reporter, the demo guest
