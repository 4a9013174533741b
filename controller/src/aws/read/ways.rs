//! What no security group stops, as far as EC2 shows it. No cut rests on it, so it is kept for some minutes: see `Kept`.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::VpcEndpointType;
use futures::future::join_all;

use super::ec2::{describe_route_tables, filter};
use super::{Read, error};
use crate::aws::kept::Kept;
use crate::aws::model::{RouteTable, VpcWays, Ways};
use crate::aws::session::Session;

pub(super) const CONNECT: &str = "DescribeInstanceConnectEndpoints";
pub(super) const CONSOLE: &str = "GetSerialConsoleAccessStatus";

impl Session {
    /// What no security group stops in these VPCs. What AWS does not say is not known, and no error.
    pub async fn ways(&self, region: &str, vpcs: BTreeSet<String>) -> Read<Ways> {
        let reader = self.region(region)?;
        let of_vpc = async |vpc: String| {
            let (routes, endpoints, connect) = futures::join!(
                self.told(&reader.routes, "ec2:DescribeRouteTables", vpc.clone()),
                self.told(&reader.endpoints, "ec2:DescribeVpcEndpoints", vpc.clone()),
                self.told(&reader.connect_endpoints, "ec2:DescribeInstanceConnectEndpoints", vpc.clone()),
            );
            (vpc, VpcWays { routes, endpoints, connect })
        };
        let console = self.told(&reader.serial_console, "ec2:GetSerialConsoleAccessStatus", ());
        let (serial_console, vpcs) = futures::join!(console, join_all(vpcs.into_iter().map(of_vpc)));
        Ok(Ways { serial_console, vpcs: vpcs.into_iter().collect() })
    }

    /// Whether instances of a type run on the Nitro system; None where AWS does not say, which is no error.
    pub async fn is_nitro(&self, region: &str, instance_type: &str) -> Read<Option<bool>> {
        let reader = &self.region(region)?.instance_types;
        let kind = self.told(reader, "ec2:DescribeInstanceTypes", instance_type.to_owned()).await;
        Ok(kind.map(|kind| kind.nitro))
    }

    async fn told<K, V>(&self, kept: &Kept<K, V>, operation: &str, key: K) -> Option<V>
    where
        K: Clone + Eq + Hash + Send + 'static,
        V: Clone + Send + 'static,
    {
        kept.get(key.clone(), self.measured(operation, kept.read(key))).await
    }
}

pub(super) async fn fetch_routes(ec2: Client, vpcs: Vec<String>) -> Read<HashMap<String, Arc<Vec<RouteTable>>>> {
    let mut all: HashMap<String, Vec<RouteTable>> = vpcs.iter().map(|vpc| (vpc.clone(), Vec::new())).collect();
    let found = describe_route_tables(&ec2, vpcs).await?;
    found.into_iter().for_each(|table| all.entry(table.vpc.clone()).or_default().push(table));
    Ok(all.into_iter().map(|(vpc, tables)| (vpc, Arc::new(tables))).collect())
}

/// Interface endpoints; those of gateways and Gateway Load Balancers are seen in the routes.
pub(super) async fn fetch_endpoints(ec2: Client, vpcs: Vec<String>) -> Read<HashMap<String, Vec<String>>> {
    let request = ec2.describe_vpc_endpoints().filters(filter("vpc-id", vpcs.clone())).max_results(1000);
    let pages = request.into_paginator().items().send();
    let found: Vec<_> = pages.collect::<Result<_, _>>().await.map_err(|e| error("ec2:DescribeVpcEndpoints", &e))?;
    let interfaces = found.into_iter().filter(|e| e.vpc_endpoint_type == Some(VpcEndpointType::Interface));
    Ok(ids(&vpcs, interfaces.filter_map(|e| e.vpc_id.zip(e.vpc_endpoint_id))))
}

pub(super) async fn fetch_connect_endpoints(ec2: Client, vpcs: Vec<String>) -> Read<HashMap<String, Vec<String>>> {
    let request = ec2.describe_instance_connect_endpoints().filters(filter("vpc-id", vpcs.clone())).max_results(50);
    let pages = request.into_paginator().items().send();
    let found: Vec<_> =
        pages.collect::<Result<_, _>>().await.map_err(|e| error("ec2:DescribeInstanceConnectEndpoints", &e))?;
    Ok(ids(&vpcs, found.into_iter().filter_map(|e| e.vpc_id.zip(e.instance_connect_endpoint_id))))
}

pub(super) async fn fetch_serial_console(ec2: Client, _: Vec<()>) -> Read<HashMap<(), bool>> {
    let answer = ec2.get_serial_console_access_status().send().await;
    let answer = answer.map_err(|e| error("ec2:GetSerialConsoleAccessStatus", &e))?;
    Ok(answer.serial_console_access_enabled.map(|on| ((), on)).into_iter().collect())
}

/// The ids of each VPC that was asked for, none included.
fn ids(vpcs: &[String], found: impl Iterator<Item = (String, String)>) -> HashMap<String, Vec<String>> {
    let mut all: HashMap<String, Vec<String>> = vpcs.iter().map(|vpc| (vpc.clone(), Vec::new())).collect();
    found.for_each(|(vpc, id)| all.entry(vpc).or_default().push(id));
    all
}
