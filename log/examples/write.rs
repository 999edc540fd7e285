//! Writes a log directory for the Java tools.
use klamm_log::*;
use klamm_log::log::*;
use klamm_log::config::LogConfig;
use klamm_log::producer_state::AppendOrigin;
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::control_record::{EndTransaction, end_transaction_batch};
use std::path::Path;
use std::sync::Arc;
fn main() {
    let root = std::env::args().nth(1).unwrap();
    let mode = std::env::args().nth(2).unwrap();
    let dir = log_dir::LogDir::open(Arc::new(disk::RealDisk), open_files::OpenFiles::new(10), Path::new(&root)).unwrap();
    println!("last {:?} meta {:?}", dir.take_last_shutdown().unwrap(), dir.meta_properties().unwrap());
    let (parts, others) = dir.partitions().unwrap();
    println!("{} partitions, others {others:?}", parts.len());
    let rp = dir.read_checkpoint(checkpoint::RECOVERY_POINT).unwrap();
    if mode == "read" {
        for p in parts {
            let name = partition_dir::PartitionDirName::current(&p.topic, p.partition);
            for clean in [true, false] {
            let o = LogOptions { config: LogConfig::default(), recovery_point: 0, log_start: 0, clean_shutdown: clean, topic_id: None, now_ms: 0 };
            let log = Log::open(dir.storage(), &Path::new(&root).join(&name), o).unwrap();
            if log.log_end() == 0 { continue }
            println!("{name} clean={clean} rp {:?} id {:?} {}..{} epochs {:?} producers {} segs {} {:?} aborted {:?}", rp.get(&(p.topic.clone(), p.partition)), log.topic_id(), log.log_start(), log.log_end(), log.leader_epochs().entries().collect::<Vec<_>>(), log.producers().len(), log.segment_count(), log.report(), log.view().aborted_transactions(0, i64::MAX));
            for p in log.producers().producers() { println!("   {p:?}"); }
            }
        }
        return;
    }
    let o = LogOptions { config: LogConfig { segment_bytes: 20000, index_interval_bytes: 500, transaction_verification: false, ..LogConfig::default() }, recovery_point: 0, log_start: 0, clean_shutdown: false, topic_id: Some("3Fqz1vE4QkiEUlmSCjTTzQ".parse().unwrap()), now_ms: 1_700_000_000_000 };
    let mut log = Log::open(dir.storage(), &Path::new(&root).join("topic.x-0"), o).unwrap();
    let how = |origin| LeaderAppend { leader_epoch: 3, origin, guard: None, transaction_version: 0 };
    for n in 0..400i64 {
        let seq = i32::try_from(n / 4).unwrap() * 5;
        let b = match n % 4 { 0 => BatchBuilder::new(0), 1 => BatchBuilder::new(0).producer(7, 0, seq), _ => BatchBuilder::new(0).producer(8 + n % 4, 1, seq).transactional() };
        let mut b = b;
        for r in 0..5 { b.append(1_700_000_000_000 + n * 10 + r, Some(b"key"), Some(format!("value {n}").as_bytes()), &[]).unwrap(); }
        log.append_as_leader(&[b.build().unwrap().into()], how(AppendOrigin::Client), 0).unwrap();
        if n % 4 == 3 && n < 396 { for id in [10, 11] {
            let end = EndTransaction { committed: n % 3 == 0, coordinator_epoch: 2 };
            log.append_as_leader(&[end_transaction_batch(id, 1, end, 1_700_000_000_000 + n * 10).unwrap().into()], how(AppendOrigin::Coordinator), 0).unwrap();
        } }
        if n % 50 == 0 { log.flush().unwrap(); }
    }
    let end = log.log_end();
    println!("end {end} segments {}", log.segment_count());
    log.close().unwrap();
    let offsets = checkpoint::PartitionOffsets::from([(("topic.x".to_owned(), 0), end)]);
    for name in [checkpoint::RECOVERY_POINT, checkpoint::HIGH_WATERMARK] { dir.write_checkpoint(name, &offsets).unwrap(); }
    dir.write_checkpoint(checkpoint::LOG_START, &checkpoint::PartitionOffsets::new()).unwrap();
    dir.mark_clean_shutdown(1).unwrap();
}
