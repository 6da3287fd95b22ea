mod exec;
mod http;
mod prober;
