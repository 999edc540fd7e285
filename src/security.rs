//! Who asks. Until there is authentication, everybody is `User:ANONYMOUS`.

pub(crate) mod principal;
