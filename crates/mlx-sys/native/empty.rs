//! Empty: the manifests beside this file exist to be fetched.
